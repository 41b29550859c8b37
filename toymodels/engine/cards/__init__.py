"""Programs compiled for a graphics card that this computer need not have, and their bounds.

XLA compiles for a card that is only described: how many cores it has, how much memory, which
instructions it knows. `card` holds the descriptions, `compiling` makes the program, `hlo` reads
which kernels run in each loop and what memory they touch, and `machine_code` reads the
instructions and registers of each kernel. No time is measured: `report` says how fast the program
cannot be.
"""
