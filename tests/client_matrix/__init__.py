"""Real clients at a server's door and at ours: what each is told, side by side.

    python -m tests.client_matrix
    python -m tests.client_matrix --version 18 --document docs/reference/clients.md

pg_receivewal, a standby and psycopg2 come by every method, and in every way that is wrong, to a
PostgreSQL server and to a hub that has the same ``pg_hba.conf``, the same roles, maps and
certificates. Tests run the same on each version.
"""
