"""Pictures of features and the self-contained HTML pages: PCA, similarity and attention maps, report, demo page.

Holds what turns tensors and a run directory into something to look at: functions that return arrays or PIL images
(`pca`, `similarity`, `attention`, `sheet`, `neighbours`) and functions that write one offline file (`report`,
`demo_page`). Holds no training, no measuring and no file formats of weights. To add a picture: a file with a function
of tensors; to add a page: a template that extends `templates/base.html` and a function that fills it through `page`.
"""
