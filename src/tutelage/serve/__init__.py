"""Requests over HTTP -> replies of a run's models, in the words of OpenAI's API."""
