"""What keeps out who does not belong, and servers from being believed: see `tools.mutations`.

Each is one of the promises of docs/promises.md, "Nobody in who does not belong".
"""

from __future__ import annotations

from tools.guard import Guard

__all__ = ["ACCESS_GUARDS", "RECEIVER", "SENDER"]

#: Clients that do not come in.
SENDER = "sender"
#: Servers that are told nothing, and not believed.
RECEIVER = "receiver"

ACCESS_GUARDS = (
    Guard(
        SENDER,
        "what was sent in the clear behind SSLRequest counts for nothing",
        "protocols/welcome.py",
        "        if self._reader.take_rest():\n",
        "        if False:\n",
        "test_protocols_welcome.EncryptionTests.test_what_was_sent_in_the_clear",
    ),
    Guard(
        SENDER,
        "channel binding is not argued away",
        "wire/scram_server.py",
        '        if flag == "y" and self._binding is not None:\n',
        "        if False:\n",
        "test_wire_scram_server.RefusedTests.test_binding",
    ),
    Guard(
        SENDER,
        "before the login there are password messages only",
        "protocols/entering.py",
        "    if kind != Frontend.PASSWORD:\n",
        "    if False:\n",
        "test_protocols_entering.ExchangeTests.test_another_message",
    ),
    Guard(
        SENDER,
        "a rule that wants a certificate gets one",
        "access/gate.py",
        "        if wants_certificate and applicant.subject is None:\n",
        "        if False:\n",
        "test_access_gate.CertificateTests.test_of_a_trusted_authority",
    ),
    Guard(
        SENDER,
        "the name in a certificate has to be the user's",
        "access/gate.py",
        "        if rule.client_certificate is ClientCertificate.VERIFY_FULL:\n",
        "        if False:\n",
        "test_access_gate.CertificateTests.test_besides_trust",
    ),
    Guard(
        SENDER,
        "wrong passwords are answered late",
        "access/gate.py",
        "        if delay:\n",
        "        if False:\n",
        "test_access_gate.ThrottleTests.test_answers_are_late",
    ),
    Guard(
        SENDER,
        "a role gets no more WAL than it may have",
        "access/permit.py",
        "        if not limits.allow_timeline(timeline) or start < limits.start:\n",
        "        if False:\n",
        "test_access_gate.RoleTests.test_streams",
    ),
    Guard(
        SENDER,
        "verifiers that others may read are not used",
        "system/private_file.py",
        "        if mode & (stat.S_IRWXG | stat.S_IRWXO) and ",
        "        if False and ",
        "test_access_role_store.RoleStoreTests.test_others_may_read_it",
    ),
    Guard(
        SENDER,
        "nobody listens for other machines without rules and TLS",
        "services/listen.py",
        "    if where is not None:\n",
        "    if False:\n",
        "test_services_listen.CheckEndpointTests.test_other_machines",
    ),
    Guard(
        SENDER,
        "of several endpoints each is looked at",
        "services/listen.py",
        "    for description in descriptions:\n",
        "    for description in descriptions[:1]:\n",
        "test_services_listen.CheckEndpointsTests.test_each_is_checked",
    ),
    Guard(
        SENDER,
        "of connections that wait there are not too many",
        "protocols/admission.py",
        "        if len(self._place_of) > self._limit:\n",
        "        if False:\n",
        "test_protocols_admission.StrangersTests.test_the_oldest_go",
    ),
    Guard(
        SENDER,
        "a flood from one place crowds out nobody from another",
        "protocols/admission.py",
        "            crowd = max(self._places.values(), key=len)\n",
        "            crowd = next(iter(self._places.values()))\n",
        "test_protocols_admission.StrangersTests.test_of_the_most",
    ),
    Guard(
        RECEIVER,
        "what was sent in the clear behind the answer to SSLRequest counts for nothing",
        "protocols/opening.py",
        '        if answer in b"SN" and len(data) > 1:\n',
        "        if False:\n",
        "test_protocols_opening.OpeningTests.test_what_was_sent_in_the_clear",
    ),
    Guard(
        RECEIVER,
        "the password goes in cleartext to servers that were verified",
        "wire/authentication.py",
        "        if not (self._is_verified or self._demands.allows_cleartext_anywhere):\n",
        "        if False:\n",
        "test_wire_authentication.PasswordTests.test_cleartext_is_for_servers_that_are_known",
    ),
    Guard(
        RECEIVER,
        "the password is asked for once",
        "wire/authentication.py",
        "        if self._asked:\n",
        "        if False:\n",
        "test_wire_authentication.PasswordTests.test_password_is_given_once",
    ),
    Guard(
        RECEIVER,
        "a server has to prove that it knows the password",
        "wire/authentication.py",
        "            if self._scram is not None and not self._scram.verified:\n",
        "            if False:\n",
        "test_wire_authentication.ScramTests.test_skipped_signature_is_a_violation",
    ),
    Guard(
        RECEIVER,
        "channel_binding=require is for all methods",
        "wire/authentication.py",
        "        if self._scram is None or not self._scram.is_bound:\n",
        "        if False:\n",
        "test_wire_authentication.ChannelBindingTests.test_required",
    ),
    Guard(
        RECEIVER,
        "a server cannot have the password guessed, or work without end done",
        "wire/scram_client.py",
        "    if not _FEWEST_ITERATIONS <= count <= _MOST_ITERATIONS:\n",
        "    if False:\n",
        "test_wire_authentication.ScramTests.test_iterations_are_bounded",
    ),
    Guard(
        RECEIVER,
        "nothing is said before it is known who runs the server",
        "protocols/client.py",
        "        return self.phase is not ReceiverPhase.CLOSED and not self._is_held\n",
        "        return self.phase is not ReceiverPhase.CLOSED\n",
        "test_protocols_unix_peer.ClientTests.test_the_server_asks_first",
    ),
    Guard(
        RECEIVER,
        "a password that others may read is not used",
        "system/private_file.py",
        "        if mode & (stat.S_IRWXG | stat.S_IRWXO) and ",
        "        if False and ",
        "test_upstream_private_file.ReadSecretTests.test_permissions",
    ),
    Guard(
        RECEIVER,
        "an archive with WAL in it stays its system's",
        "archive/blank.py",
        "    if read_end_mark(files, paths) is not None:\n",
        "    if False:\n",
        "test_archive_writing.DisownedTests.test_not_when_the_wal_was_moved_away",
    ),
)
