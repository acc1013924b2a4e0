// Command expfmtbench parses exposition text with Prometheus' own parser for Go, again and again,
// and prints the median: expfmtbench FILE [TIMES]. It is what `parsebench parse` is compared with.
package main

import (
	"bytes"
	"fmt"
	"os"
	"sort"
	"strconv"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	times := 9
	if len(os.Args) > 2 {
		if times, err = strconv.Atoi(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	var took []float64
	series := 0
	for i := 0; i < times; i++ {
		parser := expfmt.NewTextParser(model.LegacyValidation)
		began := time.Now()
		families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
		took = append(took, time.Since(began).Seconds())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		series = 0
		for _, family := range families {
			series += len(family.Metric)
		}
	}
	sort.Float64s(took)
	fmt.Printf("{\"series\": %d, \"bytes\": %d, \"seconds\": %.6f}\n", series, len(text), took[len(took)/2])
}
