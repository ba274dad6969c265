"""The smallest searches that other tools' documentation shows, to which faults are done."""
