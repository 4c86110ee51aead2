"""Weights into a module: from files and a running sum, by way of the device's memory."""
