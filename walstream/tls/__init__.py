"""TLS of both ends: contexts made of files, and what certificates say.

Encryption itself is OpenSSL's, by way of pyOpenSSL and Twisted, which the extra ``tls`` installs:
``pip install "walstream[tls]"``. Nothing but `walstream.tls.extra` may be imported before it is
known that they are there.
"""
