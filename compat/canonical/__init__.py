"""The internal request model: the one language that gateway, compat and backends share."""
