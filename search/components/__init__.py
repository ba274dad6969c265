"""The tables of components: each row is one way to do a part of the work, with its parameters and what builds it."""
