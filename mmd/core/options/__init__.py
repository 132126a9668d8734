"""Option mathematics: prices, greeks and implied volatility. Pure, scalar floats: models, never money."""
