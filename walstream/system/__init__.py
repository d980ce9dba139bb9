"""What an operating system knows of users and their files."""
