//! One or two agents, step by step.
