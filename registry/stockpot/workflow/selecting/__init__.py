"""From candidates to a report: ranked, searched for recipes, measured on data that chose nothing."""
