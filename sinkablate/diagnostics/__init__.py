"""What attention sinks compute: tap, quantities, rules, summaries."""
