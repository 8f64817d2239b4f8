// Prints what the library behind "operator-sdk bundle validate" says of each bundle directory: one JSON line a finding.
//
// Left out are the validators that are no longer kept up, and the one that asks a registry for images.
package main

import (
	"encoding/json"
	"os"

	"github.com/operator-framework/api/pkg/manifests"
	"github.com/operator-framework/api/pkg/validation"
	interfaces "github.com/operator-framework/api/pkg/validation/interfaces"
)

type finding struct {
	Directory string `json:"directory"`
	Level     string `json:"level"`
	Text      string `json:"text"`
}

func main() {
	validators := interfaces.Validators{
		validation.ClusterServiceVersionValidator,
		validation.CustomResourceDefinitionValidator,
		validation.BundleValidator,
		validation.OperatorHubV2Validator,
		validation.StandardCategoriesValidator,
		validation.StandardCapabilitiesValidator,
		validation.ObjectValidator,
		validation.OperatorGroupValidator,
		validation.AlphaDeprecatedAPIsValidator,
		validation.GoodPracticesValidator,
	}
	out := json.NewEncoder(os.Stdout)
	for _, directory := range os.Args[1:] {
		say := func(level, text string) {
			if err := out.Encode(finding{directory, level, text}); err != nil {
				panic(err)
			}
		}
		bundle, err := manifests.GetBundleFromDir(directory)
		if err != nil {
			say("error", err.Error())
			continue
		}
		objects := []interface{}{bundle}
		for _, object := range bundle.Objects {
			objects = append(objects, object)
		}
		for _, result := range validators.Validate(objects...) {
			for _, warning := range result.Warnings {
				say("warning", warning.Error())
			}
			for _, problem := range result.Errors {
				say("error", problem.Error())
			}
		}
	}
}
