"""Connections: accepted, admitted, secured, echoed."""
