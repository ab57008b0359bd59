"""Parts that any vision-language project could use; nothing here knows CoLLaVO."""
