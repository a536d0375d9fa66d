"""The hands: each module touches one part of the machine, and decides nothing."""
