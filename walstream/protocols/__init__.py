"""The two roles: `WALSender` and `WALReceiver`, state machines over the wire layer."""
