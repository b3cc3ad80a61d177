"""Values: what a network, a question, a bound and an answer are. Imports nothing else of the package."""
