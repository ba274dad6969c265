"""The tables: each way to do a part of the work is a row, with its parameters and what builds it."""
