"""Settings -> objects: dataset, sampler, packing, model, evaluation, memory plan. Settings stop here."""
