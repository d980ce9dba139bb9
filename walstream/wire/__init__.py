"""Bytes to values and back: frames, messages, commands and the payloads inside CopyData.

Nothing here knows a socket, a clock or a reactor: bytes come in, values go out, and the reverse.
"""
