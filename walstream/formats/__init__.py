"""What WAL is made of: positions, segments, timelines, page and record headers.

Pure values and functions: bytes in, values out. Nothing here opens a file or a socket.
"""
