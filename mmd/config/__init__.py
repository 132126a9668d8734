"""YAML and schema in, frozen Config out; the difference of two configs as a Plan."""
