"""The services: `twisted.application.service.IService`s that any Twisted application can hold."""
