"""A sweep across domains of text, for `make demo-domains`: a small language model, branched and averaged."""
