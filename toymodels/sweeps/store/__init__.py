"""A file that keeps the finished cells of sweeps and survives crashes.

`store` reads and writes cells in transactions, `rows` defines the tables and the checksum of a
row, `refusals` decides which files and errors are refused, and `salvage` repairs a damaged file.
"""
