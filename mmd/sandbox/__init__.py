"""An exchange in a box: matching engine, markets, one server per dialect."""
