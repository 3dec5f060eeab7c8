"""What the server, the client and the load tester share: endpoints, units, manners, logs."""
