"""The gateway beside other proxies: docs/performance.md, "peers", says how to run it."""
