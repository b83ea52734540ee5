"""One HTTP call: transport, throttle, sender."""
