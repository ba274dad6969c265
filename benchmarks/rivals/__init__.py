"""The same work done by other tools, each written as its own documentation shows, and the floor under all of them."""
