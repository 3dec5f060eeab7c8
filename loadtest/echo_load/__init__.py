"""The load tester: engines that generate load, and figures that are true."""
