"""The search: study, reward, Pareto front, and the engines that propose architectures."""
