"""Who comes in: a gate that goes by the lines of pg_hba.conf, and a file of roles.

`AccessGate` puts the parts together; each knows one thing: the files (`policy`, `role_store`), the
names of hosts (`resolver`), our own addresses (`near`), an exchange of SCRAM (`scram`), how often a
password was wrong (`throttle`), how often a role is there (`role_places`).
"""
