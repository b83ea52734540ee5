"""The whole system in a simulated world, driven by one seed.

A host that does everything badly, processes that are killed, users who leave at any moment, a clock that jumps: all in
one thread on virtual time, over a network that is made of method calls.  After each life `truth` checks what must
always hold.  Nothing here imports more of the package than its users do, and the host is written from the contract
alone: it shares no code with the client or the emulator.
"""
