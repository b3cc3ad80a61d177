"""Exact reasoning about one subproblem: what a relaxation leaves open is decided over the phases of its neurons."""
