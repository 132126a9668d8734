"""One room per exchange: typed wire messages, pure codecs, one session that awaits."""
