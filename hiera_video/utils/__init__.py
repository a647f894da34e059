"""What every floor may use: errors, files, names, repairs."""
