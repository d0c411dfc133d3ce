"""What the operation is made of: the lock and its hashes, how it is installed, licences, known vulnerabilities.

`install` runs before anything is installed and needs the standard library alone.
"""
