"""The programs mmd and mmdctl: words in, tables or JSON out."""
