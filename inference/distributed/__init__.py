"""One step on several processes: the job, the shares of the data, and the gradients joined."""
