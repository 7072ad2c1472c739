"""Analysis of models: complexity."""
