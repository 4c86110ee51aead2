"""An alias that people rely on moves through a gate, and every move is recorded."""
