"""The model in the middle: what is asked (`request`), what is answered (`events`, `result`). Pure."""
