"""Measuring qontext against its peers, in one process, outputs checked first."""
