"""The explorer: one HTML page on which a person walks through the cells of a sweep.

    toymodels.explore(results)             a page; Jupyter shows it
    toymodels.explore(results).save(path)  the page as one file, which needs no server or network

`contents` says which variable of the results plays which part, and packs the numbers. `page` puts
them into a file together with the scripts of `assets/` and the library Plotly, which draws.
"""

from .page import Page, explore

__all__ = ["Page", "explore"]
