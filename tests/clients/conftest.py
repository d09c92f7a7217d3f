from tests.clients.gateways import tool_gateway

__all__ = ["tool_gateway"]
