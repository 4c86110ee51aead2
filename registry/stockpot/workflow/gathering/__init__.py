"""From a sweep's name to its candidates: runs listed, told apart by their headers, downloaded."""
