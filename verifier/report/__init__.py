"""What a run leaves behind: witnesses, records, tables. Listens to results, never takes part in finding them."""
